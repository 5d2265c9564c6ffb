-- What was ordered is done before.
DROP TABLE orders;
