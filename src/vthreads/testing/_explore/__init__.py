"""`explore`: runs of ordinary threaded code under many schedules, their reports and their replay."""
