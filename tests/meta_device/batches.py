"""Why nothing of ``scorebook.lab.batches`` meets the meta device."""

NOT_DRIVEN = {
    "GlobalDraws": "holds generators",
    "batch_size_of": "takes a whole number",
    "rows_of": "reads the rows",
}
