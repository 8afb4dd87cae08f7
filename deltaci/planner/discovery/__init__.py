"""What builds here when nobody wrote a configuration: one module an ecosystem, each with the jobs its users expect."""
