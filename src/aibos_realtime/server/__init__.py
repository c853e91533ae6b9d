"""The building: it starts, wires and stops the parts. `assembly` alone knows their concrete classes."""
