"""Commands that people type; DVC runs none of them."""
