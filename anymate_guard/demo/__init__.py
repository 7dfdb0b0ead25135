"""An example to run and to read: an invoice bot, and a CSV file of invoices for it."""
