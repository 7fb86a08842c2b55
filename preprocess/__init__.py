"""One script per data source: raw data in, records, dataset_info entries and a report out."""
