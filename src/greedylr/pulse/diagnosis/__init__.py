"""What a recorded run says about itself."""
