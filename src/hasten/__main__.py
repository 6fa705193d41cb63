"""`python -m hasten`: the same as the command `hasten`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python has put the working directory in front: installed packages come first.
        sys.path.append(sys.path.pop(0))

    from hasten._cli import main

    main()
