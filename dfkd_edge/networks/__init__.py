"""Teacher and students as torch modules, and what runs them."""
