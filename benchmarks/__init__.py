"""Programs that measure the project side by side with what it is compared to."""
