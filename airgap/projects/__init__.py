"""What a project's build files ask a site for: the images in Dockerfiles, compose and bake files, and which the site lacks."""
