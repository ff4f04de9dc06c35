"""The plugins that come with auditor, registered through the same hooks as anyone's. Nothing below may
import them."""
