mkdir -p /var/lib/ironkeep /var/log/ironkeep
chown ironkeep:ironkeep /var/lib/ironkeep /var/log/ironkeep /etc/ironkeep
chmod 0700 /var/lib/ironkeep
chmod 0750 /var/log/ironkeep /etc/ironkeep
if [ "$1" = 1 ]; then
    chown ironkeep:ironkeep /etc/ironkeep/ironkeep.conf
    chmod 0640 /etc/ironkeep/ironkeep.conf
fi
command -v systemctl > /dev/null && systemctl daemon-reload > /dev/null 2>&1
exit 0
