"""What the command line and the HTTP API both compute; neither prints nor serves here."""
