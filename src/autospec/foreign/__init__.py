"""Files of others: held against their own size before anything is allocated, and read where they can do no harm."""
