"""Runs samplers: from a key and a posterior to draws."""
