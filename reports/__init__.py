"""Tables, plots and one HTML page from a finished or running study."""
