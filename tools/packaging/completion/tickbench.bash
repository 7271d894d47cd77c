# bash completion of tickbench: its options are read from its own --help, so that none is listed twice
_tickbench()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} options
	COMPREPLY=()
	# bash splits --type=fanout at the '='
	[ "$cur" = = ] && cur=
	[ "$prev" = = ] && prev=${COMP_WORDS[COMP_CWORD-2]}
	case $prev in
	--type) mapfile -t COMPREPLY < <(compgen -W "direct fanout topic headers all" -- "$cur") ;;
	--poll) mapfile -t COMPREPLY < <(compgen -W "busy epoll" -- "$cur") ;;
	--threads) mapfile -t COMPREPLY < <(compgen -W "1 2" -- "$cur") ;;
	--json | --hgrm | --svg) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	--host) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur") ;;
	*)
		options=$("${COMP_WORDS[0]}" --help 2>/dev/null | sed -n 's/^  \(--[a-z0-9-]*=\{0,1\}\).*/\1/p')
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
		[[ ${COMPREPLY[0]:-} == *= ]] && compopt -o nospace
		;;
	esac
}
complete -F _tickbench tickbench
