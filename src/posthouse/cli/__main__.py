"""`python -m posthouse.cli`, for places without the installed script."""

from posthouse.cli import main

main()
