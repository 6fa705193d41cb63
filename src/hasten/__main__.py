"""`python -m hasten`: runs the command line, like the command `hasten`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Move the working directory, which Python has put first, behind the installed packages.
        sys.path.append(sys.path.pop(0))

    from hasten._cli import main

    main()
