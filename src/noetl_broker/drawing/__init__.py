"""Pictures of playbooks, and of executions with the path they took: as Mermaid text and as SVG."""
