"""Conformance suites: subclass one, give it a fixture, and pytest runs the contract against
your implementation."""
