"""What programs are given when they are created: pure functions of the job."""
