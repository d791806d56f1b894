"""Family `video`: a LLaVA that reads clips of moving objects, a frame after another."""
