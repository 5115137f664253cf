// SPDX-License-Identifier: GPL-2.0
/*
 * Rewrites how one loop device's failed writes end: a kernel that deviates in one way, for the
 * suite's own tests. A kprobe stands on blk_mq_end_request(rq, status), with which the loop driver
 * completes a request, and acts when a write of a loop device fails.
 */
#include <linux/blk-mq.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static char *mode = "";
module_param(mode, charp, 0444);
MODULE_PARM_DESC(mode, "what becomes of the error: success, other, never, warn");

/* As blk_mq_end_request(): two arguments, nothing back. It leaves the request where it is. */
static noinline void rewrite_never(struct request *rq, blk_status_t status)
{
	barrier();
}

static int rewrite_before(struct kprobe *probe, struct pt_regs *regs)
{
	struct request *rq = (struct request *)regs->di;
	blk_status_t status = (blk_status_t)regs->si;

	if (!status || req_op(rq) != REQ_OP_WRITE || !rq->q->disk)
		return 0;
	if (strncmp(rq->q->disk->disk_name, "loop", 4))
		return 0;
	if (!strcmp(mode, "success")) {
		regs->si = (unsigned long)BLK_STS_OK;
	} else if (!strcmp(mode, "other")) {
		regs->si = (unsigned long)BLK_STS_TIMEOUT;
	} else if (!strcmp(mode, "warn")) {
		WARN_ON_ONCE(1);
	} else if (!strcmp(mode, "never")) {
		regs->ip = (unsigned long)rewrite_never;
		return 1;
	}
	return 0;
}

static struct kprobe rewrite_probe = {
	.symbol_name = "blk_mq_end_request",
	.pre_handler = rewrite_before,
};

static int __init rewrite_init(void)
{
	return register_kprobe(&rewrite_probe);
}

static void __exit rewrite_exit(void)
{
	unregister_kprobe(&rewrite_probe);
}

module_init(rewrite_init);
module_exit(rewrite_exit);
MODULE_DESCRIPTION("Plants a deviation in the completion of a loop device's writes");
MODULE_LICENSE("GPL");
