# Only when the package goes, not when a newer one takes its place.
if [ "$1" = 0 ] && command -v systemctl > /dev/null; then
    systemctl --no-reload disable --now ironkeep.service > /dev/null 2>&1
fi
exit 0
