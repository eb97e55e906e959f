"""Other people's networks: a file and a card become a package that runs like one trained here."""
