DROP TABLE collected;
DROP TABLE sources;
