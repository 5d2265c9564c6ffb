"""What collecting is made of, from the configuration: for a house that serves, and for the command."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from posthouse.collection.collector import Collector
from posthouse.collection.intake import House
from posthouse.config import Config
from posthouse.net.tls import client_context
from posthouse.storage.interfaces import Storage
from posthouse.vault import Vault
from posthouse.world import World


def collector_of(config: Config, storage: Storage, world: World) -> Collector:
    """It reads the authorities when first needed: a house that collects nothing never does."""
    collection = config.collection
    house = House(
        storage=storage,
        clock=world.clock,
        random=world.random,
        hostname=config.hostname,
        largest_octets=collection.message_size_octets,
    )
    return Collector(
        house=house,
        connector=world.connector,
        context=cache(partial(client_context, verified=True, authorities=collection.tls_authorities)),
        secret=vault_of(config).read,
    )


def vault_of(config: Config) -> Vault:
    """Where this house keeps the passwords that it has at others."""
    return Vault(config.data_dir / "secrets")


def turns_folder(config: Config) -> Path:
    """Where the lock files of the sources are."""
    return config.data_dir / "collecting"
