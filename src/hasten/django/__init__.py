"""A Django app that adds a management command: `python manage.py hasten worker shop.tasks:mail`.

Add `"hasten.django"` to INSTALLED_APPS. The command takes the same arguments as the command line
tool `hasten`. If you do not want to install the app, run the tool with your settings:
`DJANGO_SETTINGS_MODULE=project.settings hasten worker shop.tasks:mail`.
"""
