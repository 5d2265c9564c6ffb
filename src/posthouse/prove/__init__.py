"""`posthouse prove`: houses that are loaded, broken, started again and counted, so that anybody can check."""
