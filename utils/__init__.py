"""What every other package may import: contracts, distribution, schedules, logging, reports."""
