"""Diagrams of playbooks and of executions with their path, as Mermaid text and as SVG."""
