"""The paper's statements on training dynamics, each put to the test over many seeds."""
