"""A Django application with one command: `python manage.py hasten worker shop.tasks:mail`.

Add `"hasten.django"` to INSTALLED_APPS. The command takes the same arguments as `hasten`. Without
the application, `DJANGO_SETTINGS_MODULE=project.settings hasten worker shop.tasks:mail` does the
same.
"""
