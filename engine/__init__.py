"""The train loop, the evaluation pass and what runs in them."""
