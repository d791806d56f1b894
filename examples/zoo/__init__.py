"""Small reference models that the project trains itself, with the scripts that train them."""
