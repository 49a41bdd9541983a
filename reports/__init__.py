"""What reads: records and published figures in; tables, claims, figures and the site out.

Reads files only, never trains, never imports torch.
"""
