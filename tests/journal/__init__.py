"""What is open and what is owed outlives outages, crashes and a journal that can't be used."""
