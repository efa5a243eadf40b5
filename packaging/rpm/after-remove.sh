if command -v systemctl > /dev/null; then
    systemctl daemon-reload > /dev/null 2>&1
    [ "$1" = 0 ] || systemctl try-restart ironkeep.service > /dev/null 2>&1
fi
exit 0
