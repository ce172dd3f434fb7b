"""What `noetl-broker dev` does with a folder: its database, its playbooks registered as they change, next steps."""
