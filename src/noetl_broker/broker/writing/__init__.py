"""What a rule writes: events, tracking rows, jobs and their inputs."""
