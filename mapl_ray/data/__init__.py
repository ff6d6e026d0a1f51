"""Records that stages exchange, their Arrow schemas, and data sets of Parquet parts with a manifest."""
