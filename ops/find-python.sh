# Sourced by ops/demo and ops/test: sets $python to an interpreter that can run troupe, or ends with the reason.
# A name on the PATH proves nothing (version managers put names there for versions that are not active), so each is run.
python=
for name in python3.13 python3.12 python3.11 python3 python; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "Error: troupe needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found on the PATH." >&2
    echo "Hint: install one, for example \`apt install python3-venv\` or \`brew install python@3.13\`, and run this again." >&2
    exit 1
fi
