"""Throwaway machines: what they boot from, how they are started, spoken to and thrown away."""
