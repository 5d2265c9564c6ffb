DROP INDEX credentials_without_scram;
