"""Plain ``nn.Module`` builders; nothing here knows of slides or tasks."""
