"""Lock files: which members of a workspace have other resolved dependencies than before."""
