"""Everything that speaks to PostgreSQL. SQL text stands here and nowhere else."""
