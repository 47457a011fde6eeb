# Brings up the network so that 127.0.0.2 in the guest is 127.0.0.2 on the host: a target may then
# tell a host its own address (discovery does) and the guest can use it as it stands.
ip link set lo up
ip address del 127.0.0.1/8 dev lo
ip address add 127.0.0.1/32 dev lo
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
sysctl -qw net.ipv4.conf.all.route_localnet=1
ip route add 127.0.0.2/32 via 10.0.2.2 dev eth0 src 10.0.2.15
