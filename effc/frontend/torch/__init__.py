"""Any `nn.Module`, through `torch.export`."""
