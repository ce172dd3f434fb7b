"""What `dev` and `demo` do: a database of a folder, its playbooks registered as they change, a show, next steps."""
